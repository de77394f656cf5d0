//! `copr-keygen token`: a new token, as a line for the file of tokens. It is kept nowhere.

use super::output;
use crate::cli::Token;
use crate::error::Result;
use crate::http::tokens;

/// Prints a line.
pub fn run(options: &Token) -> Result<()> {
    output::print(&tokens::new_line(&options.name, &options.scopes, options.pattern.as_ref())?)
}
