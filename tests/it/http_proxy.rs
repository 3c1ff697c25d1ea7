//! The reverse proxy against real servers behind it.
