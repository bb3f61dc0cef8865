//! A relay before the plugin's socket, for a race in the client of the suite.
//!
//! The client reads the state of its connection, and then waits for it to change (`Connect` of csi-test). When
//! the connection becomes ready between the two, it waits for a change that has been, and gives up after a
//! minute. The relay holds the plugin's first bytes back until no thread of the client runs: then it waits.

use std::fs;
use std::io;
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::thread;

use e2e::wait;
use rustix::net::sockopt::socket_peercred;

/// Relays `socket` to `plugin` for as long as this process lives.
pub(crate) fn start(socket: &Path, plugin: PathBuf) {
    let listener = UnixListener::bind(socket).unwrap();
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let plugin = UnixStream::connect(&plugin).unwrap();
            let copies = (client.try_clone().unwrap(), plugin.try_clone().unwrap());
            thread::spawn(move || {
                let id = socket_peercred(&client).unwrap().pid.as_raw_nonzero();
                wait::until("the client waits", || sleeps(id.get()).then_some(()));
                relay(&plugin, &client);
            });
            thread::spawn(move || relay(&copies.0, &copies.1));
        }
    });
}

/// Copies to the end, and hands the end on.
fn relay(mut from: &UnixStream, mut to: &UnixStream) {
    // Either may go away: the other is to see that, nothing more.
    let _ = io::copy(&mut from, &mut to);
    let _ = to.shutdown(Shutdown::Write);
}

/// Whether every thread of a process sleeps, or the process has ended.
fn sleeps(process: i32) -> bool {
    let Ok(threads) = fs::read_dir(format!("/proc/{process}/task")) else {
        return true;
    };
    threads.flatten().all(|thread| {
        let stat = fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
        // `PID (NAME) STATE …`; the name may hold anything.
        let state = stat
            .rsplit(") ")
            .next()
            .and_then(|rest| rest.chars().next());
        matches!(state, None | Some('S' | 'Z' | 'X'))
    })
}
