//! Which store a URL means.

use std::{path::PathBuf, sync::Arc, time::Duration};

use futures_util::{FutureExt, future::BoxFuture};
use object_store::{
    BackoffConfig, ClientConfigKey, ObjectStore, ObjectStoreScheme, RetryConfig,
    aws::{AmazonS3Builder, AmazonS3ConfigKey},
    azure::{AzureConfigKey, MicrosoftAzureBuilder},
    gcp::{GoogleCloudStorageBuilder, GoogleConfigKey},
    local::LocalFileSystem,
    prefix::PrefixStore,
};
use proto::{ambient::Ids, limits};
use url::Url;

use crate::{Errors, Store};

/// How long a connection may take to come about.
const CONNECT: Duration = Duration::from_secs(5);
/// Longest transfer of one body.
const TRANSFER: Duration = Duration::from_secs(3600);
/// How often a request is repeated that failed in a way that may pass.
const REPEATS: usize = 4;

/// Why an address opens no store. Never shows the address, which may hold a secret.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// It is no URL.
    #[error("the object store's address is not a URL")]
    Url(#[source] url::ParseError),
    /// Of a kind that no store here is.
    #[error(
        "the object store's address begins with none of file, s3, az, gs or a known https host"
    )]
    Kind,
    /// A `file` URL that names no absolute directory of this host.
    #[error("the object store's address names no local directory")]
    Directory,
    /// Something behind `?` that is not known, or not known for this kind of store.
    #[error(
        "the object store's address has an option that is not known; there is fsync=true|false"
    )]
    Option,
    /// A password, where errors and listings of processes would show it.
    #[error("the object store's address holds a password; the environment is the place for it")]
    Password,
    /// The local directory cannot be made.
    #[error("failed to make the object store's directory")]
    Create(#[source] std::io::Error),
    /// The address and the environment together make no store.
    #[error("the object store's settings, from its address and the environment")]
    Settings(#[source] object_store::Error),
    /// There is nothing to sign requests with.
    #[error("failed to get credentials for the object store")]
    Credentials(#[source] object_store::Error),
}

/// Fetches what requests are signed with, from wherever it comes.
pub(crate) type Credentials =
    Arc<dyn Fn() -> BoxFuture<'static, Result<(), object_store::Error>> + Send + Sync>;

impl Store {
    /// Opens the store at a URL; the directory of a `file` URL is made. Whatever else the kind of
    /// store needs, credentials above all, comes from its usual environment variables. No request is
    /// sent. New objects are named by `ids`.
    ///
    /// # Errors
    /// The URL or the environment is wrong, or the directory cannot be made.
    pub fn open(address: &str, ids: Ids) -> Result<Self, OpenError> {
        let environment = std::env::vars_os();
        let text = environment
            .filter_map(|(key, value)| Some((key.into_string().ok()?, value.into_string().ok()?)));
        Self::open_with(address, text, ids)
    }

    /// The directory that [`open`](Self::open) would make, if there is one to be made.
    #[must_use]
    pub fn directory_to_make(address: &str) -> Option<PathBuf> {
        let url = Url::parse(address)
            .ok()
            .filter(|url| url.scheme() == "file")?;
        let directory = url.to_file_path().ok()?;
        (!directory.exists()).then_some(directory)
    }

    /// The same with these variables in place of the process's own.
    ///
    /// # Errors
    /// The URL or the variables are wrong, or the directory cannot be made.
    pub fn open_with(
        address: &str,
        environment: impl IntoIterator<Item = (String, String)>,
        ids: Ids,
    ) -> Result<Self, OpenError> {
        let url = Url::parse(address).map_err(OpenError::Url)?;
        if url.scheme() == "file" {
            // A relative path would become one of the root directory.
            let absolute = address.starts_with("file:///");
            return if absolute {
                local(&url, ids)
            } else {
                Err(OpenError::Directory)
            };
        }
        if url.password().is_some() {
            return Err(OpenError::Password);
        }
        if url.query().is_some() {
            return Err(OpenError::Option);
        }
        let (scheme, prefix) = ObjectStoreScheme::parse(&url).map_err(|_| OpenError::Kind)?;
        let (objects, credentials) = remote(&scheme, url.as_str(), environment)?;
        let objects = if prefix.as_ref().is_empty() {
            objects
        } else {
            Arc::new(PrefixStore::new(objects, prefix))
        };
        Ok(Self {
            credentials,
            ..Self::over(objects, ids)
        })
    }

    /// Whether this process has what its requests are signed with. Where its environment does not say it, whatever
    /// gives credentials to this machine is asked. A store that is down has nothing to do with it.
    ///
    /// # Errors
    /// It has nothing.
    pub async fn check_credentials(&self) -> Result<(), OpenError> {
        match &self.credentials {
            Some(fetch) => fetch().await.map_err(OpenError::Credentials),
            None => Ok(()),
        }
    }
}

/// The directory that a store's address names, if it names one.
#[must_use]
pub fn local_directory(address: &str) -> Option<PathBuf> {
    let url = Url::parse(address).ok()?;
    let is_local = url.scheme() == "file";
    is_local.then(|| url.to_file_path().ok()).flatten()
}

fn local(url: &Url, ids: Ids) -> Result<Store, OpenError> {
    let mut fsync = false;
    for (option, value) in url.query_pairs() {
        fsync = match (&*option, &*value) {
            ("fsync", "true") => true,
            ("fsync", "false") => false,
            _ => return Err(OpenError::Option),
        };
    }
    let directory: PathBuf = url.to_file_path().map_err(|()| OpenError::Directory)?;
    std::fs::create_dir_all(&directory).map_err(OpenError::Create)?;
    let objects = LocalFileSystem::new_with_prefix(&directory).map_err(OpenError::Settings)?;
    Ok(Store {
        objects: Arc::new(objects.with_fsync(fsync)),
        directory: Some(directory.into()),
        credentials: None,
        errors: Errors::default(),
        ids,
    })
}

fn remote(
    scheme: &ObjectStoreScheme,
    url: &str,
    environment: impl IntoIterator<Item = (String, String)>,
) -> Result<(Arc<dyn ObjectStore>, Option<Credentials>), OpenError> {
    let retry = RetryConfig {
        backoff: BackoffConfig::default(),
        max_retries: REPEATS,
        retry_timeout: limits::STORE_REQUEST,
    };
    // The three builders have the same methods and no trait. Variables whose names are no settings
    // are none of ours; those that are come before our own bounds, and the URL before both.
    macro_rules! build {
        ($builder:ty, $key:ty, $prefix:literal $(, $also:literal)*) => {{
            let mut builder = <$builder>::new();
            for (name, value) in environment {
                if name.starts_with($prefix) $(|| name == $also)* {
                    if let Ok(key) = name.to_ascii_lowercase().parse::<$key>() {
                        builder = builder.with_config(key, value);
                    }
                }
            }
            for (key, value) in bounds() {
                builder = builder.with_config(<$key>::Client(key), value);
            }
            let unsigned = says_yes(builder.get_config_value(&<$key>::SkipSignature));
            let built = builder.with_retry(retry).with_url(url).build();
            let built = built.map_err(OpenError::Settings)?;
            let provider = Arc::clone(built.credentials());
            let fetch: Credentials = Arc::new(move || {
                let provider = Arc::clone(&provider);
                async move { provider.get_credential().await.map(drop) }.boxed()
            });
            let objects: Arc<dyn ObjectStore> = Arc::new(built);
            (objects, (!unsigned).then_some(fetch))
        }};
    }
    Ok(match scheme {
        ObjectStoreScheme::AmazonS3 => build!(AmazonS3Builder, AmazonS3ConfigKey, "AWS_"),
        ObjectStoreScheme::MicrosoftAzure => {
            build!(
                MicrosoftAzureBuilder,
                AzureConfigKey,
                "AZURE_",
                "MSI_ENDPOINT"
            )
        }
        ObjectStoreScheme::GoogleCloudStorage => {
            build!(
                GoogleCloudStorageBuilder,
                GoogleConfigKey,
                "GOOGLE_",
                "SERVICE_ACCOUNT"
            )
        }
        _ => return Err(OpenError::Kind),
    })
}

/// Whether a setting is one that the store's own client takes for a yes.
fn says_yes(setting: Option<String>) -> bool {
    let setting = setting.unwrap_or_default().to_ascii_lowercase();
    ["1", "true", "on", "yes", "y"].contains(&&*setting)
}

/// A limit on a whole request would end long downloads by slow readers, so it is the time without
/// progress that is limited.
fn bounds() -> [(ClientConfigKey, String); 3] {
    let seconds = |duration: Duration| format!("{} seconds", duration.as_secs());
    [
        (ClientConfigKey::ConnectTimeout, seconds(CONNECT)),
        (ClientConfigKey::ReadTimeout, seconds(limits::STORE_REQUEST)),
        (ClientConfigKey::Timeout, seconds(TRANSFER)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "c2VjcmV0LXNlY3JldA==";

    fn open(address: &str, environment: &[(&str, &str)]) -> Result<Store, OpenError> {
        let environment = environment.iter();
        let owned = environment.map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Store::open_with(address, owned, Ids::random())
    }

    #[test]
    fn every_kind_of_address_opens_a_store() {
        let s3 = [
            ("AWS_ACCESS_KEY_ID", "id"),
            ("AWS_SECRET_ACCESS_KEY", SECRET),
        ];
        let azure = [
            ("AZURE_STORAGE_ACCOUNT_NAME", "account"),
            ("AZURE_STORAGE_ACCOUNT_KEY", SECRET),
        ];
        let google = [("GOOGLE_SKIP_SIGNATURE", "true")];
        let emulator = [("AZURE_STORAGE_USE_EMULATOR", "true")];
        assert_eq!(local_directory("s3://bucket/below"), None);
        for (address, environment) in [
            ("s3://bucket", &s3[..]),
            ("s3://bucket/below/it", &s3),
            ("https://s3.eu-west-1.amazonaws.com/bucket/below", &s3),
            ("az://container", &azure),
            ("azure://container/below", &azure),
            (
                "https://account.blob.core.windows.net/container/below",
                &azure[1..],
            ),
            ("az://container", &emulator),
            ("gs://bucket/below", &google),
        ] {
            let opened = open(address, environment);
            assert!(opened.is_ok(), "{address}: {opened:?}");
            let shown = format!(
                "{:?} {:?}",
                opened,
                opened.as_ref().unwrap().objects.to_string()
            );
            assert!(!shown.contains(SECRET), "{shown}");
        }
    }

    #[tokio::test]
    async fn credentials_are_what_the_environment_says_or_the_machine_has() {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let nobody = format!("http://{}", free.local_addr().unwrap());
        drop(free);
        let machine = [
            ("AWS_METADATA_ENDPOINT", &*nobody),
            ("AWS_ENDPOINT", &nobody),
            ("AWS_ALLOW_HTTP", "true"),
        ];
        let own = [
            ("AWS_ACCESS_KEY_ID", "id"),
            ("AWS_SECRET_ACCESS_KEY", SECRET),
        ];
        let unsigned = [("AWS_SKIP_SIGNATURE", "TRUE")];
        for (settings, has) in [(&[][..], false), (&own, true), (&unsigned, true)] {
            let settings = [&machine, settings].concat();
            let store = open("s3://bucket", &settings).unwrap();
            assert_eq!(store.check_credentials().await.is_ok(), has, "{settings:?}");
        }
    }

    #[test]
    fn a_directory_is_made_and_may_be_synced() {
        let directory = tempfile::tempdir().unwrap();
        let below = directory.path().join("a b/store");
        for option in ["", "?fsync=true", "?fsync=false"] {
            let url = Url::from_directory_path(&below).unwrap();
            let opened = Store::open(&format!("{url}{option}"), Ids::random());
            assert!(opened.is_ok(), "{option}: {opened:?}");
            let named = local_directory(&format!("{url}{option}"));
            assert_eq!(named.as_deref(), Some(&*below));
            let shown = opened.unwrap().objects;
            assert!(below.is_dir());
            // The store behind shows whether it syncs.
            let syncs = format!("{shown:?}").contains("fsync: true");
            assert_eq!(syncs, option == "?fsync=true");
        }
    }

    #[test]
    fn what_opens_nothing_is_refused_without_being_shown() {
        let secret = format!("s3://user:{SECRET}@bucket/x");
        let signed = format!("https://a.blob.core.windows.net/container?sig={SECRET}");
        for address in [
            "",
            "not a url",
            "file:relative",
            "file://host/x",
            "file:///x?fsync=perhaps",
            "file:///x?sync=true",
            "s3://bucket?region=x",
            "memory:///",
            "http://127.0.0.1/x",
            &secret,
            &signed,
            "ftp://host/x",
            "az://container",
            "s3://bucket/%00",
        ] {
            let refused = open(address, &[]);
            if let Err(error) = &refused {
                let shown = format!("{error} {error:?}");
                assert!(!shown.contains(SECRET), "{shown}");
            }
            assert!(refused.is_err(), "{address}");
        }
    }
}
