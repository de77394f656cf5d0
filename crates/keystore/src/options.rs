//! The options of the store, which come from the settings of the program.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::secrets::sealing_key::SealingKey;
use crate::shared::agreement::Agreement;

/// Where the keys are and how they are kept.
#[derive(Clone, Debug)]
pub struct Options {
    /// The state directory, an absolute path.
    pub state_dir: PathBuf,
    /// The number of gpg jobs that may run at once.
    pub jobs: usize,
    /// How long a request waits for one of the `jobs`.
    pub queue_timeout: Duration,
    /// The maximum age of a secret key in the pool.
    pub pool_max_age: Duration,
    /// The in-memory directory in which obs-signd finds passphrases as files; `None` for links in `phrases/`.
    pub phrases_dir: Option<PathBuf>,
    /// The key that passphrases are sealed with.
    pub sealing_key: Option<SealingKey>,
    /// Decides which key of an identity counts on all hosts, if there are several; `None` on a single host.
    pub agreement: Option<Arc<dyn Agreement>>,
}
