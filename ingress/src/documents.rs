//! The documents that are made from the code. They are committed, so that they can be read without building
//! anything, and so that changes of what is promised to callers are seen.

use std::{fs, path::Path};

use anyhow::Context;

use crate::{api::openapi::Contract, error::page};

/// Path below `ingress/`, and text.
pub type Document = (String, String);

/// All of them.
#[must_use]
pub fn all() -> Vec<Document> {
    let described = Contract::ALL.map(|contract| {
        let path = format!("openapi/{}.json", contract.name());
        (path, contract.text().to_owned())
    });
    let mut documents = vec![("ERRORS.md".to_owned(), page::page())];
    documents.extend(described);
    documents
}

/// Writes them.
///
/// # Errors
/// A file cannot be written.
pub fn write(directory: &Path) -> anyhow::Result<()> {
    for (path, text) in all() {
        let path = directory.join(path);
        let parent = path.parent().unwrap_or(directory);
        fs::create_dir_all(parent)
            .and_then(|()| fs::write(&path, text))
            .with_context(|| format!("{} cannot be written", path.display()))?;
    }
    Ok(())
}
