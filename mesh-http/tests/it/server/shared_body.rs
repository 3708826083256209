//! The request's body, which handlers keep, drop, return or forget.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_handler_that_answers_with_the_requests_own_body_does_not_hang() {
    for head in [
        "Content-Length: 4\r\n\r\nab",
        "Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n",
    ] {
        let mut client = Client::new(ServerConfig::default(), |request| async move {
            Response::new(request.into_body())
        });
        client
            .send(&format!("POST / HTTP/1.1\r\nHost: a\r\n{head}"))
            .await;
        tokio::time::sleep(Duration::from_millis(1)).await;
        client
            .send(if head.starts_with('C') {
                "cd"
            } else {
                "2\r\ncd\r\n0\r\n\r\n"
            })
            .await;
        let (text, ..) = client.rest().await;
        assert!(text.contains("ab") && text.contains("cd"), "{text}");
    }
}

#[tokio::test(start_paused = true)]
async fn no_100_follows_the_head_of_the_answer() {
    let mut client = Client::new(ServerConfig::default(), |request| async move {
        Response::new(request.into_body())
    });
    client
        .send("POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n")
        .await;
    tokio::time::sleep(Duration::from_millis(1)).await;
    client.send("ok").await;
    let (text, ..) = client.rest().await;
    assert_eq!(
        text,
        "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok"
    );
}

#[tokio::test(start_paused = true)]
async fn a_body_kept_beyond_its_answer_does_not_read_the_next_request() {
    let kept = Arc::new(Mutex::new(Vec::<Body>::new()));
    let keeper = Arc::clone(&kept);
    let mut client = Client::new(ServerConfig::default(), move |mut request| {
        let keeper = Arc::clone(&keeper);
        async move {
            let mut body = std::mem::take(request.body_mut());
            if request.uri().path() == "/1" {
                while let Some(Ok(_)) = body.frame().await {}
                keeper.lock().unwrap().push(body);
                return Response::new(Body::from("hello"));
            }
            // The old body is asked while the new one is on its way.
            let mut old = keeper.lock().unwrap().pop().unwrap();
            let eaten = old.frame().await.is_some();
            let new = body.collect().await.unwrap().to_bytes();
            Response::new(Body::from(format!("{eaten} {}", new.len())))
        }
    });
    for (path, expected) in [("/1", "hello"), ("/2", "false 4")] {
        client
            .send(&format!(
                "POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nab"
            ))
            .await;
        tokio::time::sleep(Duration::from_millis(1)).await;
        client.send("cd").await;
        client.expect(expected).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_that_has_arrived_keeps_the_connection_though_nobody_read_its_body() {
    let mut client = Client::new(ServerConfig::default(), |_| async {
        tokio::time::sleep(Duration::from_millis(5)).await;
        Response::new(Body::from("hello"))
    });
    for rest in [
        "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        "Content-Length: 4\r\n\r\nab",
    ] {
        client
            .send(&format!("POST / HTTP/1.1\r\nHost: a\r\n{rest}"))
            .await;
        tokio::time::sleep(Duration::from_millis(1)).await;
        if rest.starts_with('C') {
            client.send("cd").await;
        }
        assert_eq!(client.expect("hello").await, HELLO);
    }
    client.send("GET /3 HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(client.expect("hello").await, HELLO);
}

#[tokio::test(start_paused = true)]
async fn a_body_read_by_another_task_goes_on_when_the_connection_reads_its_bytes() {
    let mut client = Client::new(ServerConfig::default(), |request| async move {
        let read = tokio::spawn(request.into_body().collect());
        // Both wait on the socket; whoever reads last has its attention.
        for _ in 0..3 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        Response::new(Body::from(read.await.unwrap().unwrap().to_bytes()))
    });
    client
        .send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nab")
        .await;
    tokio::time::sleep(Duration::from_millis(20)).await;
    client.send("cd").await;
    client.expect("abcd").await;
}
