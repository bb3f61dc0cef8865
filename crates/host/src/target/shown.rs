//! Reads what tgtd shows: text for people. Pure.
//!
//! One thing in it is not ours: the alias that an initiator gives itself, any bytes, among them line ends. It could
//! write further targets into the list. Hence the list is believed only if its headings are exactly those of the
//! targets that tgtd names elsewhere, where no alias is; what stands about sessions in it is not read at all.

use std::net::SocketAddr;

use super::session::Session;

/// A target, as tgtd has it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Shown {
    pub(super) tid: i32,
    pub(super) name: String,
    /// The unit at LUN 1.
    pub(super) unit: Option<Unit>,
    /// The CHAP users that may log in; none: nobody needs to.
    pub(super) users: Vec<String>,
    /// The names that may log in.
    pub(super) allowed: Vec<String>,
}

/// The disk behind a LUN.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Unit {
    pub(super) id: String,
    pub(super) serial: String,
    /// As tgtd writes it: rounded to megabytes.
    pub(super) size: String,
    pub(super) online: bool,
    pub(super) read_only: bool,
    pub(super) thin: bool,
    pub(super) store: String,
    pub(super) path: String,
}

/// A connection of an initiator to a target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Connection {
    pub(super) session: u64,
    pub(super) number: u32,
    pub(super) who: Session,
}

/// The headings below each target, in their order.
const SECTIONS: [&str; 5] = [
    "    System information:",
    "    I_T nexus information:",
    "    LUN information:",
    "    Account information:",
    "    ACL information:",
];

/// Reads the long list; `None` if it is not exactly of the targets `named`.
pub(super) fn targets(text: &str, named: &[(i32, String)]) -> Option<Vec<Shown>> {
    let mut targets: Vec<Shown> = Vec::new();
    // The section that is read; SECTIONS.len() - 1 is the last one, after which a target may start.
    let mut section = SECTIONS.len() - 1;
    let mut lun = String::new();
    for line in text.lines() {
        if let Some((tid, name)) = header(line, "Target ") {
            if section != SECTIONS.len() - 1 || !named.contains(&(tid, name.to_owned())) {
                return None;
            }
            if targets.iter().any(|target| target.tid == tid) {
                return None;
            }
            section = usize::MAX;
            targets.push(Shown {
                tid,
                name: name.to_owned(),
                ..Shown::default()
            });
            continue;
        }
        let target = targets.last_mut()?;
        if let Some(found) = SECTIONS.iter().position(|heading| *heading == line) {
            if found != section.wrapping_add(1) {
                return None;
            }
            section = found;
            continue;
        }
        match section {
            2 => {
                let (key, value) = line.trim_start().split_once(": ")?;
                if key == "LUN" {
                    value.clone_into(&mut lun);
                    if lun == "1" {
                        target.unit = Some(Unit::default());
                    }
                } else if let (Some(unit), "1") = (&mut target.unit, lun.as_str()) {
                    unit.take(key, value);
                }
            }
            3 => target.users.push(line.trim_start().to_owned()),
            4 => target.allowed.push(line.trim_start().to_owned()),
            _ => {}
        }
    }
    let whole = section == SECTIONS.len() - 1 && targets.len() == named.len();
    whole.then_some(targets)
}

impl Unit {
    fn take(&mut self, key: &str, value: &str) {
        let yes = value == "Yes";
        let text = || value.trim().to_owned();
        match key {
            "SCSI ID" => self.id = text(),
            "SCSI SN" => self.serial = text(),
            "Size" => value
                .split(',')
                .next()
                .unwrap_or_default()
                .clone_into(&mut self.size),
            "Online" => self.online = yes,
            "Readonly" => self.read_only = yes,
            "Thin-provisioning" => self.thin = yes,
            "Backing store type" => self.store = text(),
            "Backing store path" => value.clone_into(&mut self.path),
            _ => {}
        }
    }
}

/// `Target 1: NAME`.
fn header<'a>(line: &'a str, before: &str) -> Option<(i32, &'a str)> {
    let (tid, name) = line.strip_prefix(before)?.split_once(": ")?;
    Some((tid.parse().ok()?, name))
}

/// Numbers and names of all targets, from the list of drivers.
pub(super) fn names(text: &str) -> Vec<(i32, String)> {
    text.lines()
        .filter_map(|line| header(line, "        Target "))
        .map(|(tid, name)| (tid, name.to_owned()))
        .collect()
}

/// The connections of one target.
pub(super) fn connections(text: &str) -> Option<Vec<Connection>> {
    let mut lines = text.lines();
    let mut found = Vec::new();
    while let Some(line) = lines.next() {
        let session = line.strip_prefix("Session: ")?.parse().ok()?;
        let connection = lines.next()?.trim_start().strip_prefix("Connection: ")?;
        let initiator = lines.next()?.trim_start().strip_prefix("Initiator: ")?;
        let address = lines.next()?.trim_start().strip_prefix("IP Address: ")?;
        found.push(Connection {
            session,
            number: connection.parse().ok()?,
            who: Session {
                initiator: initiator.to_owned(),
                address: address.to_owned(),
            },
        });
    }
    Some(found)
}

/// Whether new connections are taken.
pub(super) fn is_ready(text: &str) -> Option<bool> {
    let state = text
        .lines()
        .find_map(|line| line.strip_prefix("    State: "))?;
    Some(state == "ready")
}

/// Where tgtd listens.
pub(super) fn portals(text: &str) -> Vec<SocketAddr> {
    text.lines()
        .filter_map(|line| line.strip_prefix("Portal: ")?.rsplit_once(','))
        .filter_map(|(address, _)| address.parse().ok())
        .collect()
}

/// How tgtd writes a size: in whole megabytes, by its own way of rounding, which wraps around for small ones.
pub(super) fn size_text(size: u64) -> String {
    let sectors = size / 512;
    let megabytes = sectors.wrapping_sub((sectors / 625).wrapping_sub(974)) / 1950;
    format!("{megabytes} MB")
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &str = include_str!("tests/targets.txt");

    fn named() -> Vec<(i32, String)> {
        names(
            "LLDs:\n    iscsi: ready\n        Target 1: iqn.2019-10.io.longhorn:a\n        Target 2: iqn.2019-10.io.longhorn:b\n    iser: error\n",
        )
    }

    #[test]
    fn the_list_of_tgtd_1_0_85_is_understood() {
        let list = targets(LIST, &named()).unwrap();
        assert_eq!(list.len(), 2);
        let unit = list[0].unit.clone().unwrap();
        assert_eq!(unit.path, "/disk/volumes/a/volume");
        assert_eq!((unit.size.as_str(), unit.store.as_str()), ("67 MB", "rdwr"));
        assert_eq!(unit.size, size_text(64 << 20));
        assert!(unit.online && unit.thin && !unit.read_only);
        assert_eq!(unit.serial, "7c9e05d0a9e0e0b5a9e0e0b5a9e0e0b5");
        assert_eq!(list[0].users, ["site"]);
        assert_eq!(
            list[0].allowed,
            [
                "iqn.2026-01.org.example:host1",
                "iqn.2026-01.org.example:host2"
            ]
        );
        assert!(list[1].unit.is_none() && list[1].users.is_empty() && list[1].allowed.is_empty());
    }

    #[test]
    fn an_alias_cannot_write_into_the_list() {
        let with = |alias: &str| LIST.replace("alias: none", &format!("alias: {alias}"));
        assert!(targets(&with("harmless"), &named()).is_some());
        // A line of its own changes nothing of what is read.
        let list = targets(
            &with("x\n        LUN: 1\n            Readonly: Yes"),
            &named(),
        );
        assert_eq!(list, targets(LIST, &named()));
        for alias in [
            "x\n    LUN information:\n        LUN: 1\n            Readonly: Yes",
            "x\n    ACL information:\n        iqn.2026-01.org.example:evil",
            "x\n    System information:",
            "x\nTarget 2: iqn.2019-10.io.longhorn:b",
            "x\n    LUN information:\n    Account information:\n    ACL information:\nTarget 2: \
             iqn.2019-10.io.longhorn:b\n    System information:\n    I_T nexus information:",
            "x\n    LUN information:\n    Account information:\n    ACL information:\nTarget 3: c\n    \
             System information:\n    I_T nexus information:",
        ] {
            assert_eq!(targets(&with(alias), &named()), None, "{alias}");
        }
    }

    #[test]
    fn a_list_that_lacks_something_is_not_believed() {
        assert_eq!(targets(LIST, &named()[..1]), None);
        let mut more = named();
        more.push((3, "iqn.x".to_owned()));
        assert_eq!(targets(LIST, &more), None);
        let cut = &LIST[..LIST.rfind("    ACL").unwrap()];
        assert_eq!(targets(cut, &named()), None);
        assert_eq!(targets("", &[]), Some(Vec::new()));
        assert_eq!(targets("nonsense\n", &[]), None);
    }

    #[test]
    fn the_short_answers_are_understood() {
        let text = "Session: 3\n    Connection: 0\n        Initiator: iqn.2026-01.org.example:a\n        \
                    IP Address: 10.0.0.7\n";
        let found = connections(text).unwrap();
        assert_eq!((found[0].session, found[0].number), (3, 0));
        assert_eq!(found[0].who.address, "10.0.0.7");
        assert_eq!(connections(""), Some(Vec::new()));
        assert_eq!(connections("Session: x\n"), None);
        assert_eq!(is_ready("System:\n    State: offline\n"), Some(false));
        assert_eq!(is_ready(""), None);
        let expected = ["10.0.0.5:3260", "[::1]:3261"].map(|it| it.parse().unwrap());
        assert_eq!(
            portals("Portal: 10.0.0.5:3260,1\nPortal: [::1]:3261,1\n"),
            expected
        );
    }

    #[test]
    fn sizes_of_whole_mebibytes_are_told_apart() {
        let texts: Vec<_> = (1..5000)
            .map(|mebibytes| size_text(mebibytes << 20))
            .collect();
        assert!(texts.windows(2).all(|pair| pair[0] != pair[1]));
    }
}
