use std::net::{Ipv6Addr, TcpStream};

use super::*;

/// Row 110: Longhorn's control plane leaves the host out.
#[test]
fn row_110_where_to_listen_is_said_with_and_without_a_host() {
    for (text, shown) in [
        (":8000", "[::]:8000"),
        ("0.0.0.0:8000", "0.0.0.0:8000"),
        ("localhost:8000", "localhost:8000"),
        ("localhost:0", "localhost:0"),
        ("[::1]:0", "[::1]:0"),
        ("unix:/run/manager.sock", "unix:/run/manager.sock"),
    ] {
        assert_eq!(address(text).unwrap().to_string(), shown);
    }
    assert_eq!(
        socket_address(":9100").unwrap(),
        SocketAddr::from((Ipv6Addr::UNSPECIFIED, 9100))
    );
    for wrong in [
        "",
        ":",
        ":0",
        "host name:0",
        "::1:0",
        ":x",
        ":65536",
        "::8000",
        ":8000:",
        ": 8000",
    ] {
        assert!(address(wrong).is_err(), "{wrong:?} was taken");
    }
}

#[tokio::test]
async fn row_110_an_empty_host_is_every_address_of_both_families() {
    let listener = tcp("[::]:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
    if std::net::TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_ok() {
        TcpStream::connect((Ipv6Addr::LOCALHOST, port)).unwrap();
    }
    assert!(
        tcp(&format!("[::]:{port}")).await.is_err(),
        "the port is taken"
    );
}
