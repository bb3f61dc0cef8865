//! The program `kubectl-longhorn_image`.

fn main() {}
