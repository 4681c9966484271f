//! Metrics as Prometheus reads them.

use std::net::SocketAddr;

use loadtest::raw::RawRequest;

/// The value of a sample by its name with labels, as a process shows it now.
pub(crate) async fn sample(address: SocketAddr, name: &str) -> f64 {
    let response = RawRequest::new("GET", "/metrics")
        .send(address)
        .await
        .unwrap();
    assert_eq!(response.status, 200);
    let text = String::from_utf8(response.body).unwrap();
    let values: Vec<_> = text
        .lines()
        .filter_map(|line| line.strip_prefix(name)?.strip_prefix(' '))
        .collect();
    let [value] = values.as_slice() else {
        panic!("{name} is there {} times: {text}", values.len());
    };
    value.parse().unwrap()
}
