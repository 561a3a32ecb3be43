//! Tests of requests: whole ones against golden text, and what each rule of Converse does to one.

use super::*;
