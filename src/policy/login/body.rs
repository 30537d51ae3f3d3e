//! Reading the body of a watched request: urlencoded, multipart and JSON, strictly.
