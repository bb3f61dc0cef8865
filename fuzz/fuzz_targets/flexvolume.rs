//! Options of FlexVolume calls and configurations with any content: no panic, every rejection is
//! the caller's fault with a short reason, and accepted values are within their limits.
//!
//! The first byte selects how the rest is read: as the JSON object, as a configuration file, or as
//! options, one `key=value` per line, merged with those of the kubelet as the kubelet does, which
//! reaches the values much sooner.

#![no_main]

use std::path::Path;

use flexvolume::Error;
use flexvolume::config::Config;
use flexvolume::options::Options;
use libfuzzer_sys::fuzz_target;
use types::{ByteSize, Classify as _, ErrorKind};

fuzz_target!(|data: &[u8]| {
    let Some((kind, rest)) = data.split_first() else { return };
    let text = String::from_utf8_lossy(rest);
    let refusal = match kind % 4 {
        0 => options(&text),
        1 => Config::parse(Path::new("/etc/x.toml"), &text).err(),
        _ => options(&laid_over(&text)),
    };
    if let Some(error) = refusal {
        assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
        // The parser of configurations repeats the line that it means; options are cut.
        let most = if kind % 4 == 1 { 4 * data.len() + 4096 } else { 4096 };
        let said = types::report(&error).to_string();
        assert!(said.len() <= most, "{} bytes: {said}", said.len());
    }
});

fn options(json: &str) -> Option<Error> {
    match Options::parse(json) {
        Ok(options) => {
            assert!((1..=20).contains(&options.number_of_replicas));
            assert!(options.size.is_none_or(|size| size > ByteSize(0)));
            // It becomes a part of a path.
            assert!(!options.volume.as_str().contains('/'));
            None
        }
        Err(error) => Some(error),
    }
}

/// The kubelet's own options with these lines over them.
fn laid_over(lines: &str) -> String {
    let mut map = serde_json::json!({
        "kubernetes.io/fsType": "",
        "kubernetes.io/pod.name": "pod",
        "kubernetes.io/pod.namespace": "default",
        "kubernetes.io/pod.uid": "uid",
        "kubernetes.io/pvOrVolumeName": "volume",
        "kubernetes.io/readwrite": "rw",
        "kubernetes.io/serviceAccount.name": "default",
    });
    for (key, value) in lines.lines().filter_map(|line| line.split_once('=')) {
        map[key] = value.into();
    }
    map.to_string()
}
