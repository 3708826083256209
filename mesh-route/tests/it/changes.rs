//! Changes that a filter makes, one after the other.

use http::{HeaderMap, HeaderName, Request, Response};
use mesh_core::{clock, format::Format};
use mesh_route::{
    AppendAction, HeaderAdd, HeaderChange, HeaderChanges, MUTATIONS_MAX, MessageChanges,
};

use crate::support::info;

fn add(name: &str, value: &str) -> HeaderChange {
    let add = HeaderAdd::new(name, Format::parse(value).unwrap()).unwrap();
    HeaderChange::add(add).unwrap()
}

fn set(name: &str, value: &str) -> HeaderChange {
    let add = HeaderAdd::new(name, Format::parse(value).unwrap()).unwrap();
    HeaderChange::add(add.append_action(AppendAction::OverwriteIfExistsOrAdd)).unwrap()
}

fn remove(name: &'static str) -> HeaderChange {
    HeaderChange::remove(HeaderName::from_static(name)).unwrap()
}

fn changes(list: Vec<HeaderChange>) -> HeaderChanges {
    HeaderChanges::new(list).unwrap()
}

fn all(headers: &HeaderMap, name: &str) -> Vec<String> {
    let values = headers.get_all(name).iter();
    values
        .map(|value| value.to_str().unwrap().to_owned())
        .collect()
}

#[test]
fn each_change_sees_what_those_before_it_have_done() {
    let request = changes(vec![
        add("x-a", "%REQ(x-in)%"),
        remove("x-in"),
        add("x-b", "%REQ(x-a)%-%REQ(x-in)%"),
        set("x-c", "last"),
    ]);
    let (mut parts, ()) = Request::get("/")
        .header("x-in", "1")
        .header("x-c", "first")
        .body(())
        .unwrap()
        .into_parts();
    let changes = MessageChanges::new(request, HeaderChanges::default());
    changes.apply_to_request(&mut parts, &info());
    assert_eq!(all(&parts.headers, "x-a"), ["1"]);
    assert_eq!(all(&parts.headers, "x-b"), ["1-"]);
    assert_eq!(all(&parts.headers, "x-c"), ["last"]);
    assert!(!parts.headers.contains_key("x-in"));
}

#[test]
fn names_that_match_go_and_the_host_stays() {
    let names = mesh_core::matcher::StringMatcher::prefix("ho").unwrap();
    let request = changes(vec![HeaderChange::RemoveMatching(names)]);
    let (mut parts, ()) = Request::get("/")
        .header("host", "a")
        .header("hot", "1")
        .header("hop", "1")
        .header("x", "1")
        .body(())
        .unwrap()
        .into_parts();
    MessageChanges::new(request, HeaderChanges::default()).apply_to_request(&mut parts, &info());
    let left: Vec<&str> = parts.headers.keys().map(HeaderName::as_str).collect();
    assert_eq!(left, ["host", "x"]);
}

#[test]
fn a_response_may_quote_its_request_without_disturbing_the_log() {
    let response = changes(vec![
        add("x-path", "%REQ(:PATH)%"),
        set("x-code", "%RESPONSE_CODE%"),
    ]);
    let changes = MessageChanges::new(HeaderChanges::default(), response);
    let (head, ()) = Request::get("/a?b").body(()).unwrap().into_parts();
    let captured = changes.capture(&head);
    let (mut parts, ()) = Response::builder()
        .status(418)
        .body(())
        .unwrap()
        .into_parts();
    let info = info();
    info.with(|facts| facts.captured.push(None));
    changes.apply_to_response(&mut parts, &info, captured, clock::now());
    assert_eq!(all(&parts.headers, "x-path"), ["/a?b"]);
    assert_eq!(all(&parts.headers, "x-code"), ["418"]);
    assert!(info.with(|facts| facts.captured.as_slice() == [None]));
}

#[test]
fn there_is_a_most() {
    let list = vec![remove("x"); MUTATIONS_MAX + 1];
    assert!(HeaderChanges::new(list).is_err());
    assert!(HeaderChange::remove(HeaderName::from_static("host")).is_err());
}
