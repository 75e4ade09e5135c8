//! Policies as people write them, without packets: what they are read to, what they are compiled to, what is decided.

mod cases;
