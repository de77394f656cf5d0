//! SIGKILL at any moment loses nothing and leaves nothing half-made.
