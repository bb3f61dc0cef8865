//! What answers in a guest of `make vm-test`: runs commands for the harness and forwards its connections to sockets of
//! the guest. One connection is one command.
//!
//! The first line is a JSON object. `{"run": ["PROGRAM", …]}`: everything after it is the program's input; back come
//! frames, a byte that says what it is ([`OUTPUT`], [`ERRORS`], [`STATUS`]), a length (u32, big endian) and the bytes.
//! When the connection ends first, the program's process group is killed. `{"connect": "/PATH"}`: bytes go both ways.
//!
//! It is a program of the guest alone and uses nothing of the harness, so that it is small.
#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a harness: a broken guest ends the test"
)]

use std::io::{self, BufRead as _, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::Value;

/// A piece of standard output.
const OUTPUT: u8 = 1;
/// A piece of standard error.
const ERRORS: u8 = 2;
/// The end: exit status or 128 + signal, i32, big endian.
const STATUS: u8 = 3;

fn main() {
    let address = std::env::args().nth(1).expect("vm-guest ADDRESS");
    let listener = TcpListener::bind(&address).unwrap();
    for stream in listener.incoming() {
        let stream = stream.unwrap();
        thread::spawn(move || {
            if let Err(error) = serve(&stream) {
                eprintln!("vm-guest: {error}");
            }
            let _ = stream.shutdown(Shutdown::Both);
        });
    }
}

fn serve(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut input = BufReader::new(stream.try_clone()?);
    let mut line = String::new();
    input.read_line(&mut line)?;
    let asked: Value = serde_json::from_str(&line)?;
    match (&asked["run"], &asked["connect"]) {
        (Value::Array(words), _) => {
            let words: Vec<&str> = words.iter().filter_map(Value::as_str).collect();
            run(&words, input, stream)
        }
        (_, Value::String(path)) => forward(input, stream, &UnixStream::connect(path)?),
        _ => Err(io::Error::other(format!("not understood: {line}"))),
    }
}

fn run(words: &[&str], input: BufReader<TcpStream>, stream: &TcpStream) -> io::Result<()> {
    let output = Arc::new(Mutex::new(stream.try_clone()?));
    let Some((program, arguments)) = words.split_first() else {
        return Err(io::Error::other("no program"));
    };
    let child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn();
    let mut child = match child {
        Ok(child) => child,
        Err(error) => {
            frame(&output, ERRORS, format!("{program}: {error}").as_bytes())?;
            return frame(&output, STATUS, &127i32.to_be_bytes());
        }
    };
    let group = Pid::from_child(&child);
    feed(&mut child, input, group);
    let pumps = [
        pump(child.stdout.take().unwrap(), OUTPUT, output.clone(), group),
        pump(child.stderr.take().unwrap(), ERRORS, output.clone(), group),
    ];
    for pump in pumps {
        let _ = pump.join();
    }
    let status = child.wait()?;
    let code = status
        .code()
        .unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
    frame(&output, STATUS, &code.to_be_bytes())
}

/// Gives the program its input. A half-closed connection is the end of the input; a broken one the end of the program.
fn feed(child: &mut Child, mut input: BufReader<TcpStream>, group: Pid) {
    let mut stdin = child.stdin.take();
    thread::spawn(move || {
        let mut buffer = vec![0; 64 << 10];
        loop {
            match input.read(&mut buffer) {
                Ok(0) => return,
                Ok(length) => {
                    let write = stdin.as_mut().map(|pipe| pipe.write_all(&buffer[..length]));
                    if !matches!(write, Some(Ok(()))) {
                        // It wants no more; what comes is read to see the end of the connection.
                        stdin = None;
                    }
                }
                Err(_) => {
                    let _ = kill_process_group(group, Signal::KILL);
                    return;
                }
            }
        }
    });
}

fn pump(
    mut from: impl Read + Send + 'static,
    kind: u8,
    to: Arc<Mutex<TcpStream>>,
    group: Pid,
) -> thread::JoinHandle<()> {
    thread::spawn(move || {
        let mut buffer = vec![0; 64 << 10];
        while let Ok(length @ 1..) = from.read(&mut buffer) {
            if frame(&to, kind, &buffer[..length]).is_err() {
                // Nobody listens any more.
                let _ = kill_process_group(group, Signal::KILL);
                return;
            }
        }
    })
}

fn frame(to: &Mutex<TcpStream>, kind: u8, bytes: &[u8]) -> io::Result<()> {
    let length = u32::try_from(bytes.len()).unwrap();
    let mut frame = vec![kind];
    frame.extend(length.to_be_bytes());
    frame.extend(bytes);
    // In one piece: two pumps write.
    to.lock().unwrap().write_all(&frame)
}

fn forward(
    mut input: BufReader<TcpStream>,
    stream: &TcpStream,
    socket: &UnixStream,
) -> io::Result<()> {
    let (mut to, mut from) = (socket.try_clone()?, socket.try_clone()?);
    thread::spawn(move || {
        let _ = io::copy(&mut input, &mut to);
        let _ = to.shutdown(Shutdown::Write);
    });
    let mut back = stream;
    io::copy(&mut from, &mut back)?;
    Ok(())
}
