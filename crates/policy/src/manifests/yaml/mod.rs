//! YAML with places: text to trees and back. What is deliberately absent: any knowledge of manifests.

mod compose;
mod document;
mod emit;
mod scalar;
mod tree;

pub(crate) use compose::Composer;
pub(crate) use document::chunks;
pub(crate) use emit::emit;
pub(crate) use scalar::{Scalar, Sort};
pub(crate) use tree::{Entry, Node, Place, Value};
