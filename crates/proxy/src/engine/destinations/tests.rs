//! The choice, the signs and the marks, by hand; the probes with an engine on virtual time.
