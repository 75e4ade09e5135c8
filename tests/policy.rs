//! Policies as people write them: what they are read to and compiled to, what is decided, and what passes.

mod cases;
pub(super) mod kubernetes;
mod live;
pub(super) mod loaded;
pub(super) mod world;
