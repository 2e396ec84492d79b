// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Values that have one written form, on the command line and in the configuration document alike.

/// Lets types with `FromStr` and `Display` stand in the configuration document as strings.
macro_rules! text_form {
    ($($name:ty),+) => {$(
        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = <String as serde::Deserialize>::deserialize(deserializer)?;
                let invalid = |error| serde::de::Error::custom(format_args!("invalid value '{text}': {error}"));
                text.parse().map_err(invalid)
            }
        }
    )+};
}

pub(super) use text_form;
