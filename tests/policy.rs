//! Policies as people write them: what they are read to and compiled to, what is decided, and what passes.

mod cases;
mod live;
mod loaded;
