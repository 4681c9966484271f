//! Sessions have no network: code that tries is told so, and finds its loopback interface.

use loadtest::client::Session;

use crate::stack::{fail, printed, shared};

const NONE: &str = "this session has no network, so do not try again: \
                    ask for the file to be uploaded to /mnt/data, and read it from there";

async fn last_line(session: &Session, code: &str) -> String {
    let failed = fail(session, code).await;
    failed
        .stderr
        .trim_end()
        .lines()
        .next_back()
        .unwrap()
        .to_owned()
}

#[tokio::test]
async fn code_that_tries_to_reach_a_network_is_told_in_the_last_line() {
    let stack = shared().await;
    let session = stack.session();
    for (code, said) in [
        (
            "import socket; socket.getaddrinfo('example.com', 443)",
            "gaierror: [Errno -3] ",
        ),
        (
            "socket.create_connection(('192.0.2.1', 443))",
            "OSError: [Errno 101] ",
        ),
        (
            "import urllib.request; urllib.request.urlopen('https://example.com')",
            "URLError: <urlopen error [Errno -3] ",
        ),
        (
            "import pandas as pd; pd.read_csv('https://example.com/a.csv')",
            "URLError: <urlopen error [Errno -3] ",
        ),
        (
            "import requests; requests.get('https://example.com')",
            "ConnectionError: HTTPSConnectionPool(host='example.com', port=443)",
        ),
        (
            "import asyncio; await asyncio.open_connection('192.0.2.1', 443)",
            "OSError: [Errno 101] ",
        ),
    ] {
        let last = last_line(&session, code).await;
        assert!(last.starts_with(said), "{code}: {last}");
        assert!(last.contains(NONE), "{code}: {last}");
    }
}

#[tokio::test]
async fn the_loopback_interface_is_the_only_one() {
    let stack = shared().await;
    let session = stack.session();
    let interfaces = "import socket, psutil\n\
                      print(socket.if_nameindex(), socket.if_nametoindex('lo'), socket.if_indextoname(1))\n\
                      for name, told in psutil.net_if_addrs().items():\n    \
                          print(name, *((one.family.name, one.address, one.netmask) for one in told))\n\
                      for name, told in psutil.net_if_stats().items():\n    \
                          print(name, told.isup, told.mtu, told.speed, told.flags)";
    assert_eq!(
        printed(&session, interfaces).await,
        "[(1, 'lo')] 1 lo\n\
         lo ('AF_INET', '127.0.0.1', '255.0.0.0') \
         ('AF_INET6', '::1', 'ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff') \
         ('AF_PACKET', '00:00:00:00:00:00', None)\n\
         lo True 65536 0 up,loopback,running\n"
    );
    // The socket that libraries would ask with stays refused.
    assert_eq!(
        last_line(&session, "socket.socket(socket.AF_NETLINK)").await,
        "PermissionError: [Errno 1] Operation not permitted"
    );
}
