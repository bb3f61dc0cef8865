//! The program `longhorn-ui`.

fn main() {}
