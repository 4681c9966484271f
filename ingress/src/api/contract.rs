//! The two contracts and which api-versions speak them.

/// api-versions of the contracts. The path tells the contract, except for the paths that both have.
pub const API_VERSIONS: [&str; 6] = [
    "2023-08-01-preview",
    "2024-02-02-preview",
    "2024-08-02-preview",
    "2024-10-02-preview",
    "2025-02-02-preview",
    "2025-10-02-preview",
];

/// An api-version that was withdrawn before it was announced. It is known where `executions` have the name that they
/// had in it.
pub const WITHDRAWN: &str = "2024-09-01";

/// First api-version of the new contract, which answers in other shapes.
const NEW_CONTRACT: &str = "2024-10-02";
/// First api-version that knows pools of shells.
pub const SHELL: &str = "2025-02-02";
/// First api-version whose listings reach into sub-directories.
pub const RECURSIVE: &str = "2025-10-02";

/// In what words a caller speaks and is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Contract {
    /// Of api-versions before 2024-10-02-preview.
    Old,
    /// Of that version and those since.
    New,
}

impl Contract {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Old, Self::New];

    /// That of an api-version.
    #[must_use]
    pub fn of(version: &str) -> Self {
        if version >= NEW_CONTRACT {
            Self::New
        } else {
            Self::Old
        }
    }

    /// In the names of files and addresses.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Old => "old",
            Self::New => "new",
        }
    }

    /// Its api-versions.
    #[must_use]
    pub fn versions(self) -> Vec<&'static str> {
        let versions = API_VERSIONS.into_iter();
        versions
            .filter(|version| Self::of(version) == self)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_contracts_together_have_every_version() {
        let versions: Vec<_> = Contract::ALL
            .into_iter()
            .flat_map(Contract::versions)
            .collect();
        assert_eq!(versions, API_VERSIONS);
    }
}
