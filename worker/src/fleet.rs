//! Which fleet a worker belongs to, as what it owns on its host says it.

/// Hexadecimal digits of a fingerprint.
const DIGITS: usize = 16;

/// Name of the fleet that uses the object store at this address. It is the same for every spelling of
/// the address that differs in credentials and options only, and tells nothing of it.
#[must_use]
pub fn of_store(address: &str) -> String {
    let (plain, _) = address.split_once(['?', '#']).unwrap_or((address, ""));
    let (scheme, place) = plain.split_once("://").unwrap_or(("", plain));
    let (host, path) = place.split_once('/').unwrap_or((place, ""));
    let host = host.rsplit('@').next().unwrap_or_default();
    let path = path.trim_end_matches('/');
    let hash = blake3::hash(format!("{scheme}://{host}/{path}").as_bytes());
    let digits = hash.to_hex();
    digits.get(..DIGITS).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_is_a_fleet_however_its_address_is_spelled() {
        let fleet = of_store("s3://bucket/below");
        assert_eq!(fleet.len(), DIGITS);
        for same in ["s3://bucket/below/", "s3://user@bucket/below"] {
            assert_eq!(of_store(same), fleet, "{same}");
        }
        let local = of_store("file:///srv/hearth");
        assert_eq!(of_store("file:///srv/hearth?fsync=true"), local);
        for other in ["s3://bucket", "az://bucket/below", "s3://other/below", ""] {
            assert_ne!(of_store(other), fleet, "{other}");
        }
        assert_ne!(local, of_store("file:///srv/hearth2"));
    }
}
