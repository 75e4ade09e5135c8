//! Scenarios: what weft promises, seen on real namespaces, real kernels and real daemons.

mod cluster;
