//! not there yet
use crate::cli::*;
use crate::error::*;
use crate::settings::Settings;
pub fn import(_: &Settings, _: &Import) -> Result<()> {
    Err(Error::Usage("not there yet".into()))
}
pub fn export(_: &Settings, _: &Export) -> Result<()> {
    Err(Error::Usage("not there yet".into()))
}
