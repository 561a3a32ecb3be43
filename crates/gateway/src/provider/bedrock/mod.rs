//! AWS Bedrock's Converse API, and the frames of its event streams. Only a backend: no client speaks it here.
