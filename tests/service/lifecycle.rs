//! Starting, idling, stopping.
