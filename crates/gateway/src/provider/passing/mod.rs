//! Bodies that pass through as they are: what the gateway must know of a request ([`facts`], measured by the [`tally`]) and
//! of an answer ([`answer`], [`chunk`], [`typed`]), and the few bytes that it puts in ([`splice`], [`body_mutation`]).

pub(crate) mod answer;
pub(crate) mod beginning;
pub(crate) mod body_mutation;
pub(crate) mod borrowed;
pub(crate) mod chunk;
pub(crate) mod facts;
pub(crate) mod fields;
pub(crate) mod form;
pub(crate) mod kinds;
pub(crate) mod output;
pub(crate) mod splice;
pub(crate) mod stream_options;
pub(crate) mod tally;
pub(crate) mod typed;
