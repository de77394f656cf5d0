//! Hostile bytes on the socket.
