//! Container-image layers, read as streams.
