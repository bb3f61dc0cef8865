use clap::Parser as _;

use super::*;

fn check(arguments: &[&str]) -> Result<Config> {
    let program = ["longhorn-csi-plugin"];
    Args::parse_from(program.iter().chain(arguments)).check()
}

#[test]
fn each_mode_asks_for_what_it_needs() {
    let all = check(&["--node-id", "node-1", "--disk", "/disk"]).unwrap();
    assert_eq!(all.topology_key, "driver.longhorn.io/node");
    assert!(all.controller.is_some() && all.node.is_some());
    let controller = check(&["--mode", "controller"]).unwrap();
    assert!(controller.controller.is_some() && controller.node.is_none());
    for (arguments, flag) in [
        (&["--mode", "node", "--node-id", "n"][..], "--disk"),
        (&["--mode", "node", "--disk", "/d"], "--node-id"),
        (
            &["--mode", "node", "--disk", "/d", "--node-id", ""],
            "--node-id",
        ),
        (
            &["--mode", "node", "--disk", "d", "--node-id", "n"],
            "--disk",
        ),
        (
            &["--mode", "node", "--disk", "/d", "--node-id", "a b"],
            "--node-id",
        ),
        (
            &[
                "--mode",
                "controller",
                "--driver-name",
                "rancher.io/longhorn",
            ],
            "--driver-name",
        ),
        (
            &["--mode", "controller", "--topology-key", "node"],
            "--topology-key",
        ),
        (
            &["--mode", "controller", "--endpoint", "tcp://127.0.0.1:1"],
            "--endpoint",
        ),
        (
            &["--mode", "controller", "--manager", "nowhere"],
            "manager address",
        ),
    ] {
        let error = check(arguments).unwrap_err().to_string();
        assert!(error.starts_with(flag), "{arguments:?}: {error}");
    }
}

#[test]
fn driver_names_are_what_kubernetes_takes() {
    for good in ["driver.longhorn.io", "a", "my-driver.example"] {
        DriverName::new(good).unwrap();
    }
    let long = "a".repeat(64);
    for bad in [
        "",
        "Driver.io",
        "driver.longhorn.io.",
        "a..b",
        "a.-b.c",
        "1a",
        "a_b",
        &long,
    ] {
        assert!(DriverName::new(bad).is_err(), "{bad:?} was taken");
    }
}

#[test]
fn endpoints_are_absolute_paths() {
    for good in [
        "unix:///csi/csi.sock",
        "unix:/csi/csi.sock",
        "/csi/csi.sock",
    ] {
        assert_eq!(
            checks::socket("--endpoint", good).unwrap(),
            PathBuf::from("/csi/csi.sock")
        );
    }
    let long = format!("unix:///{}", "a".repeat(107));
    for bad in [
        "",
        "csi.sock",
        "unix://csi.sock",
        "tcp://127.0.0.1:1",
        "unix:///",
        &long,
    ] {
        assert!(
            checks::socket("--endpoint", bad).is_err(),
            "{bad:?} was taken"
        );
    }
}
