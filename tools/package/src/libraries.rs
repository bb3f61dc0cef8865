//! The shared libraries that a program loads, and where the distribution's programs are.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::error::{Error, Result, io};

/// Where programs of the distribution are looked for.
const DIRECTORIES: [&str; 3] = ["/usr/sbin", "/usr/bin", "/usr/local/bin"];

/// A program of the distribution.
pub(crate) fn find(program: &str) -> Result<PathBuf> {
    DIRECTORIES
        .iter()
        .map(|directory| Path::new(directory).join(program))
        .find(|path| path.is_file())
        .ok_or_else(|| Error::NoProgram {
            program: program.to_owned(),
        })
}

/// The libraries that `program` loads when it starts, its loader among them: none of a static one.
pub(crate) fn of(program: &Path) -> Result<Vec<PathBuf>> {
    // The loader itself is asked what it would load; it does not start the program.
    let output = Command::new("ldd")
        .arg(program)
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .output()
        .map_err(io("run ldd on", program))?;
    let said = String::from_utf8_lossy(&output.stdout);
    if said.contains("=> not found") {
        let said = format!("{}: {}", program.display(), said.trim());
        return Err(Error::Tool {
            program: "ldd",
            said,
        });
    }
    Ok(parse(&said))
}

/// `libc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x…)` and `/lib64/ld-linux-x86-64.so.2 (0x…)`.
fn parse(said: &str) -> Vec<PathBuf> {
    let path = |line: &str| {
        let line = line.trim();
        let path = line.split_once(" => ").map_or(line, |(_, path)| path);
        let path = path.split(" (0x").next()?;
        path.starts_with('/').then(|| PathBuf::from(path))
    };
    let mut paths: Vec<PathBuf> = said.lines().filter_map(path).collect();
    paths.sort();
    paths.dedup();
    paths
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loaders_words_are_understood() {
        let said = "\tlinux-vdso.so.1 (0x00007ffd)\n\tlibz.so.1 => /lib/x/libz.so.1 (0x00007f)\n\t\
                    libc.so.6 => /lib/x/libc.so.6 (0x00007f)\n\t/lib64/ld-linux.so.2 (0x00007f)\n";
        let expected = [
            "/lib/x/libc.so.6",
            "/lib/x/libz.so.1",
            "/lib64/ld-linux.so.2",
        ];
        assert_eq!(parse(said), expected.map(PathBuf::from));
        assert!(parse("\tstatically linked\n").is_empty());
        assert!(parse("\tnot a dynamic executable\n").is_empty());
    }

    #[test]
    fn this_very_program_loads_the_c_library() {
        let libraries = of(&std::env::current_exe().unwrap()).unwrap();
        let has = |name: &str| libraries.iter().any(|path| path.ends_with(name));
        assert!(has("libc.so.6"), "{libraries:?}");
    }
}
