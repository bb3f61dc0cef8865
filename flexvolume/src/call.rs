//! The command line: which call it is, and its arguments, unchecked.

use std::ffi::OsString;
use std::path::PathBuf;

use types::ByteSize;

use crate::error::{Error, Result, shown};
use crate::install::Install;

/// The answer to `longhorn help`.
pub(crate) const HELP: &str = "\
longhorn: the FlexVolume driver rancher.io/longhorn.

FOR PEOPLE
  longhorn install --plugin-dir DIR [--config FILE] [--vendor NAME] [--allow-downgrade] [--stay]
                           copies itself to DIR/rancher.io~longhorn/longhorn, and the configuration
                           next to it; with --stay it then waits for a signal, for use in a DaemonSet
  longhorn install --plugin-dir DIR --uninstall
                           removes both
  longhorn version | help

FOR THE KUBELET; each call answers with one JSON object
  longhorn init
  longhorn mount DIR JSON | unmount DIR | expandvolume … | expandfs …
  longhorn attach … | waitforattach … | isattached … | mountdevice … | unmountdevice … | detach …
                           these need attach = true in the configuration

EXAMPLES
  longhorn install --plugin-dir /usr/libexec/kubernetes/kubelet-plugins/volume/exec \\
    --config longhorn.toml
  longhorn mount /mnt/data '{\"kubernetes.io/pvOrVolumeName\": \"data\",
    \"kubernetes.io/pod.namespace\": \"default\", \"size\": \"64Mi\"}'
  longhorn unmount /mnt/data

The configuration is longhorn.toml next to the executable, or else /etc/longhorn/flexvolume.toml:
  manager = \"unix:/run/longhorn-base-image/manager.sock\"
  disks = [\"/var/lib/longhorn\"]   # the disk directories of this node
For all keys, options of volumes, and messages, see docs/flexvolume.md.";

/// A call of the kubelet on a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum DriverCall {
    /// `attach <json> <node>`
    Attach { json: String, node: String },
    /// `detach <pvOrVolumeName> <node>`
    Detach { volume: String, node: String },
    /// `waitforattach <device> <json>`
    WaitForAttach { device: String, json: String },
    /// `isattached <json> <node>`
    IsAttached { json: String, node: String },
    /// `mountdevice <dir> <device> <json>`
    MountDevice {
        target: PathBuf,
        device: String,
        json: String,
    },
    /// `unmountdevice <dir>`
    UnmountDevice { target: PathBuf },
    /// `mount <dir> <json>`
    Mount { target: PathBuf, json: String },
    /// `unmount <dir>`
    Unmount { target: PathBuf },
    /// `expandvolume <json> <device> <newBytes> <oldBytes>`
    ExpandVolume { json: String, size: ByteSize },
    /// `expandfs <json> <device> <mountpath> <newBytes> <oldBytes>`
    ExpandFs {
        json: String,
        path: PathBuf,
        size: ByteSize,
    },
}

impl DriverCall {
    /// Whether the call exists only where volumes are attached by a controller.
    pub(crate) const fn needs_attach(&self) -> bool {
        matches!(
            self,
            Self::Attach { .. }
                | Self::Detach { .. }
                | Self::WaitForAttach { .. }
                | Self::IsAttached { .. }
                | Self::MountDevice { .. }
                | Self::UnmountDevice { .. }
        )
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Call {
    /// `init`
    Init,
    /// `getvolumename <json>`
    GetVolumeName,
    Driver(DriverCall),
    /// `install …`, for people and containers.
    Install(Install),
    /// `version`
    Version,
    /// `help`
    Help,
    /// A call that kubelets of the future may have.
    Unknown,
}

impl Call {
    /// Reads a command line. What follows the known arguments is ignored: a newer kubelet may have
    /// more to say.
    pub(crate) fn parse(arguments: Vec<OsString>) -> Result<Self> {
        let mut arguments = Arguments::new(arguments)?;
        Ok(match arguments.call.clone().as_str() {
            "init" => Self::Init,
            "getvolumename" => Self::GetVolumeName,
            "version" | "--version" | "-V" => Self::Version,
            "help" | "--help" | "-h" => Self::Help,
            "install" => Self::Install(Install::parse(arguments.rest)?),
            call => match arguments.driver_call(call)? {
                Some(call) => Self::Driver(call),
                None => Self::Unknown,
            },
        })
    }

    /// What the log calls it.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Init => "init",
            Self::GetVolumeName => "getvolumename",
            Self::Install(_) => "install",
            Self::Version => "version",
            Self::Help => "help",
            Self::Unknown => "unknown",
            Self::Driver(call) => match call {
                DriverCall::Attach { .. } => "attach",
                DriverCall::Detach { .. } => "detach",
                DriverCall::WaitForAttach { .. } => "waitforattach",
                DriverCall::IsAttached { .. } => "isattached",
                DriverCall::MountDevice { .. } => "mountdevice",
                DriverCall::UnmountDevice { .. } => "unmountdevice",
                DriverCall::Mount { .. } => "mount",
                DriverCall::Unmount { .. } => "unmount",
                DriverCall::ExpandVolume { .. } => "expandvolume",
                DriverCall::ExpandFs { .. } => "expandfs",
            },
        }
    }
}

/// The arguments, taken one by one.
struct Arguments {
    call: String,
    rest: std::vec::IntoIter<OsString>,
}

impl Arguments {
    fn new(arguments: Vec<OsString>) -> Result<Self> {
        let mut rest = arguments.into_iter();
        rest.next();
        let call = rest.next().ok_or_else(|| Error::Usage {
            why: "a call is missing".to_owned(),
        })?;
        let call = call.to_string_lossy().into_owned();
        Ok(Self { call, rest })
    }

    fn driver_call(&mut self, call: &str) -> Result<Option<DriverCall>> {
        Ok(Some(match call {
            "attach" => DriverCall::Attach {
                json: self.text("the options")?,
                node: self.text("the node")?,
            },
            "detach" => DriverCall::Detach {
                volume: self.text("the volume")?,
                node: self.text("the node")?,
            },
            "waitforattach" => DriverCall::WaitForAttach {
                device: self.text("the device")?,
                json: self.text("the options")?,
            },
            "isattached" => DriverCall::IsAttached {
                json: self.text("the options")?,
                node: self.text("the node")?,
            },
            "mountdevice" => DriverCall::MountDevice {
                target: self.path()?,
                device: self.text("the device")?,
                json: self.text("the options")?,
            },
            "unmountdevice" => DriverCall::UnmountDevice {
                target: self.path()?,
            },
            "mount" => DriverCall::Mount {
                target: self.path()?,
                json: self.text("the options")?,
            },
            "unmount" => DriverCall::Unmount {
                target: self.path()?,
            },
            "expandvolume" => {
                let json = self.text("the options")?;
                self.text("the device")?;
                let size = self.size()?;
                DriverCall::ExpandVolume { json, size }
            }
            "expandfs" => {
                let json = self.text("the options")?;
                self.text("the device")?;
                let path = self.path()?;
                let size = self.size()?;
                DriverCall::ExpandFs { json, path, size }
            }
            _ => return Ok(None),
        }))
    }

    fn next(&mut self, what: &str) -> Result<OsString> {
        self.rest.next().ok_or_else(|| Error::Usage {
            why: format!("{} needs {what}", shown(&self.call)),
        })
    }

    fn text(&mut self, what: &str) -> Result<String> {
        self.next(what)?.into_string().map_err(|_| Error::Usage {
            why: format!("{what} of {} is not UTF-8", shown(&self.call)),
        })
    }

    fn path(&mut self) -> Result<PathBuf> {
        self.next("a directory").map(PathBuf::from)
    }

    fn size(&mut self) -> Result<ByteSize> {
        let text = self.text("the new size")?;
        let size = text.parse().ok().filter(|_| !text.starts_with('+'));
        size.map(ByteSize).ok_or_else(|| Error::Usage {
            why: format!("{:?} is not a number of bytes", shown(&text)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &[&str]) -> Result<Call> {
        let program = ["longhorn"].iter().chain(line);
        Call::parse(program.map(OsString::from).collect())
    }

    #[test]
    fn the_twelve_calls_of_the_kubelet() {
        for (line, name) in [
            (&["init"][..], "init"),
            (&["getvolumename", "{}"], "getvolumename"),
            (&["attach", "{}", "node"], "attach"),
            (&["detach", "v", "node"], "detach"),
            (&["waitforattach", "/dev/longhorn/v", "{}"], "waitforattach"),
            (&["isattached", "{}", "node"], "isattached"),
            (
                &["mountdevice", "/d", "/dev/longhorn/v", "{}"],
                "mountdevice",
            ),
            (&["unmountdevice", "/d"], "unmountdevice"),
            (&["mount", "/d", "{}"], "mount"),
            (&["unmount", "/d"], "unmount"),
            (
                &["expandvolume", "{}", "/dev/x", "4096", "512"],
                "expandvolume",
            ),
            (
                &["expandfs", "{}", "/dev/x", "/d", "4096", "512"],
                "expandfs",
            ),
        ] {
            assert_eq!(parse(line).unwrap().name(), name);
            // A kubelet that says more is understood; one that says less is told what is missing.
            let longer: Vec<_> = line.iter().copied().chain(["more"]).collect();
            assert_eq!(parse(&longer).unwrap().name(), name);
            if line.len() > 1 && name != "getvolumename" {
                assert!(
                    matches!(parse(&line[..1]), Err(Error::Usage { .. })),
                    "{name}"
                );
            }
        }
        assert_eq!(parse(&["frobnicate"]).unwrap().name(), "unknown");
        assert!(matches!(parse(&[]), Err(Error::Usage { .. })));
        assert!(matches!(Call::parse(Vec::new()), Err(Error::Usage { .. })));
    }

    #[test]
    fn sizes_are_whole_bytes() {
        for size in ["", "-1", "+1", "1Mi", "1.5", "99999999999999999999"] {
            assert!(
                parse(&["expandvolume", "{}", "/dev/x", size]).is_err(),
                "{size:?}"
            );
        }
    }
}
