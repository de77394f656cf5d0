//! What the store is told about the host: values that were settings once.

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
    /// How many gpg jobs run at once.
    pub jobs: usize,
    /// How long a request waits for one of the `jobs`.
    pub queue_timeout: Duration,
    /// How old the secret keys of the pool may become.
    pub pool_max_age: Duration,
    /// Where obs-signd finds passphrases as files, in memory; `None` for links in `phrases/`.
    pub phrases_dir: Option<PathBuf>,
    /// The key that passphrases are sealed with.
    pub sealing_key: Option<SealingKey>,
    /// What decides for all hosts, where there is more than one.
    pub agreement: Option<Arc<dyn Agreement>>,
}
