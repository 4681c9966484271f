//! Multipart bodies written by hand, so that tests can send every form that real clients send.

/// A body and the boundary that its parts are divided by.
#[derive(Clone, Debug)]
pub struct Multipart {
    boundary: String,
    body: Vec<u8>,
}

impl Multipart {
    /// An empty body with this boundary.
    #[must_use]
    pub fn new(boundary: impl Into<String>) -> Self {
        Self {
            boundary: boundary.into(),
            body: Vec::new(),
        }
    }

    /// One file in a part called `file`, as nearly all clients send it.
    #[must_use]
    pub fn file(filename: &str, content: &[u8]) -> Self {
        Self::new("hearth-loadtest-7d1c").part("file", filename, content)
    }

    /// Adds a part with a file name.
    #[must_use]
    pub fn part(self, name: &str, filename: &str, content: &[u8]) -> Self {
        let headers = format!(
            "Content-Disposition: form-data; name=\"{name}\"; filename=\"{filename}\"\r\n\
             Content-Type: application/octet-stream\r\n"
        );
        self.part_with_headers(headers.as_bytes(), content)
    }

    /// Adds a part with these header lines, each ending in CR LF.
    #[must_use]
    pub fn part_with_headers(mut self, headers: &[u8], content: &[u8]) -> Self {
        self.body
            .extend_from_slice(format!("--{}\r\n", self.boundary).as_bytes());
        self.body.extend_from_slice(headers);
        self.body.extend_from_slice(b"\r\n");
        self.body.extend_from_slice(content);
        self.body.extend_from_slice(b"\r\n");
        self
    }

    /// The header that announces it.
    #[must_use]
    pub fn content_type(&self) -> String {
        format!("multipart/form-data; boundary={}", self.boundary)
    }

    /// The bytes to send, closed by the last boundary.
    #[must_use]
    pub fn into_body(mut self) -> Vec<u8> {
        self.body
            .extend_from_slice(format!("--{}--\r\n", self.boundary).as_bytes());
        self.body
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_has_its_parts_between_boundaries() {
        let body = Multipart::new("B").part("file", "a.txt", b"hi").into_body();
        assert_eq!(
            String::from_utf8(body).unwrap(),
            "--B\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.txt\"\r\n\
             Content-Type: application/octet-stream\r\n\r\nhi\r\n--B--\r\n"
        );
    }
}
