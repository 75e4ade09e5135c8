//! Records that cross the kernel boundary: plain, free of padding, and versioned by their layout.
//!
//! `wire!` makes the struct, proves at compile time that it has no padding and only plain fields, lets
//! aya read it, and derives a layout hash. The hashes of all tables make [`crate::table::DIGEST`], which
//! names the pin directory: a daemon and programs built from different layouts never share a map.

#![expect(unsafe_code, reason = "the only place that promises a type is plain")]

/// A value of which any bits are valid and none are padding.
///
/// # Safety
///
/// The type is `repr(C)` or `repr(transparent)`, has no padding, and no bit pattern is invalid.
pub unsafe trait Plain: Copy + 'static {}

macro_rules! plain {
    ($($t:ty),*) => {$(
        // SAFETY: an integer has no padding and no invalid bits.
        unsafe impl Plain for $t {}
    )*};
}
plain!(u8, u16, u32, u64);

// SAFETY: an array of plain values has no padding between its elements.
unsafe impl<T: Plain, const N: usize> Plain for [T; N] {}

/// Makes a record that maps can hold.
#[macro_export]
macro_rules! wire {
    ($(
        $(#[$meta:meta])*
        pub struct $name:ident { $( $(#[$field_meta:meta])* pub $field:ident : $ty:ty ),* $(,)? }
    )*) => {$(
        $(#[$meta])*
        #[repr(C)]
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name { $( $(#[$field_meta])* pub $field: $ty ),* }

        const _: () = {
            const fn plain<T: $crate::wire::Plain>() -> usize { size_of::<T>() }
            assert!(size_of::<$name>() == 0 $(+ plain::<$ty>())*, "the record has padding");
        };

        // SAFETY: the assertion above proves that every field is plain and that nothing lies between them.
        #[expect(unsafe_code, reason = "wire! is where a record is promised to be plain")]
        unsafe impl $crate::wire::Plain for $name {}

        impl $name {
            /// Hash of the record's name, field names, types and size.
            pub const LAYOUT: u64 = {
                let hash = $crate::wire::hash(0, stringify!($name));
                $( let hash = $crate::wire::hash(hash, concat!(stringify!($field), ":", stringify!($ty))); )*
                $crate::wire::mix(hash, size_of::<$name>() as u64)
            };
        }

        $crate::wire_pod!($name);
    )*};
}

/// Promises that a transparent type over a plain one is plain.
#[macro_export]
macro_rules! wire_newtype {
    ($name:ident($raw:ty)) => {
        const _: () = {
            const fn plain<T: $crate::wire::Plain>() -> usize {
                size_of::<T>()
            }
            assert!(size_of::<$name>() == plain::<$raw>(), "the type is not transparent");
        };

        // SAFETY: a newtype of the same size as what it holds, which is plain.
        #[expect(unsafe_code, reason = "wire.rs is where a type is promised to be plain")]
        unsafe impl $crate::wire::Plain for $name {}
        $crate::wire_pod!($name);
    };
}

/// Lets aya copy the type into and out of maps.
#[cfg(feature = "user")]
#[macro_export]
macro_rules! wire_pod {
    ($name:ty) => {
        // SAFETY: `Plain` is implemented, which promises the same.
        #[expect(unsafe_code, reason = "aya's word for Plain")]
        unsafe impl aya::Pod for $name {}
    };
}

/// Without the feature `user` there is no aya to tell.
#[cfg(not(feature = "user"))]
#[macro_export]
macro_rules! wire_pod {
    ($name:ty) => {};
}

/// FNV-1a over the bytes of `text`, started from `seed`.
pub const fn hash(seed: u64, text: &str) -> u64 {
    let bytes = text.as_bytes();
    let mut hash = seed ^ 0xcbf2_9ce4_8422_2325;
    let mut i = 0;
    while i < bytes.len() {
        hash = (hash ^ bytes[i] as u64).wrapping_mul(0x0000_0100_0000_01b3);
        i += 1;
    }
    hash
}

/// Adds a number to a layout hash.
pub const fn mix(seed: u64, number: u64) -> u64 {
    (seed ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(23)
}

#[cfg(test)]
mod tests {
    use super::{hash, mix};

    /// As `wire!` does it.
    fn layout(name: &str, fields: &[&str], size: u64) -> u64 {
        mix(fields.iter().fold(hash(0, name), |digest, field| hash(digest, field)), size)
    }

    #[test]
    fn every_part_of_a_record_is_in_its_layout() {
        let one = layout("One", &["a:u32", "b:u32"], 8);
        assert_eq!(one, layout("One", &["a:u32", "b:u32"], 8));
        for other in [
            layout("Two", &["a:u32", "b:u32"], 8),
            layout("One", &["a:u32", "c:u32"], 8),
            layout("One", &["b:u32", "a:u32"], 8),
            layout("One", &["a:u32", "b:u16"], 8),
            layout("One", &["a:u32", "b:u32"], 12),
        ] {
            assert_ne!(one, other);
        }
    }
}
