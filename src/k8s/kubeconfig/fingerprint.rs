//! Whether two processes mean the same cluster, as the same user, reached in the same way.

use std::fmt::Write as _;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use super::Loaded;

impl Loaded {
    /// A number that is the same for two that mean the same: files, context, server, user,
    /// credentials, impersonation, namespace and proxy. Another build of kdev may number
    /// otherwise.
    #[must_use]
    pub fn fingerprint(&self) -> u64 {
        let mut hash = DefaultHasher::new();
        for file in &self.files {
            // The same file by another path is the same.
            let real = file.canonicalize();
            real.as_ref().unwrap_or(file).hash(&mut hash);
        }
        (&self.context, &self.cluster, &self.user, &self.namespace).hash(&mut hash);
        self.server.to_string().hash(&mut hash);
        self.proxy().hash(&mut hash);
        let config = &self.config;
        (&config.root_cert, &config.root_cert_file).hash(&mut hash);
        (config.accept_invalid_certs, &config.tls_server_name).hash(&mut hash);
        // Not its tokens, which are renewed.
        let login = self.oidc.as_ref().map(|provider| provider.identity());
        login.hash(&mut hash);
        let mut rest = String::new();
        // These types say all that they hold only to a serializer.
        for text in [
            serde_json::to_string(&config.auth_info),
            serde_json::to_string(&self.exec),
        ] {
            // Text that cannot be written down is equal to itself only.
            let text = text.unwrap_or_else(|_| format!("{:x}", rand::random::<u128>()));
            let _ = write!(rest, "{}:{text}", text.len());
        }
        rest.hash(&mut hash);
        hash.finish()
    }
}
