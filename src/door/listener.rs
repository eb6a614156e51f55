//! Connections under limits, for every door, over TCP and over Unix sockets.

use std::{
    future::Future,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream, UnixListener, UnixStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, Sleep, sleep, sleep_until},
};
use tokio_util::either::Either;
use tonic::transport::server::Connected;
use tracing::warn;

/// How long to wait after an accept failed (no file descriptors left) before the next.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// The limits of a listener's connections.
#[derive(Clone, Copy, Debug)]
pub struct ListenerLimits {
    /// How many may be open; a further one is closed at once.
    pub max_connections: usize,
    /// How many bytes a connection must send, and within what time; else it is closed.
    pub opening_bytes: usize,
    /// See [`Self::opening_bytes`].
    pub opening_within: Duration,
    /// How long a connection may live; `None` is without end.
    pub max_age: Option<Duration>,
}

/// A listener whose connections are under limits. Bad connections never end it.
#[derive(Debug)]
pub struct GuardedListener {
    socket: Either<TcpListener, UnixListener>,
    limits: ListenerLimits,
    permits: Arc<Semaphore>,
}

impl GuardedListener {
    /// Binds to `addr`.
    pub async fn bind(addr: SocketAddr, limits: ListenerLimits) -> io::Result<Self> {
        let socket = TcpListener::bind(addr).await?;
        Ok(Self::new(Either::Left(socket), limits))
    }

    /// Of a Unix socket that listens.
    pub fn over(socket: UnixListener, limits: ListenerLimits) -> Self {
        Self::new(Either::Right(socket), limits)
    }

    fn new(socket: Either<TcpListener, UnixListener>, limits: ListenerLimits) -> Self {
        let permits = Arc::new(Semaphore::new(limits.max_connections));
        Self {
            socket,
            limits,
            permits,
        }
    }

    /// The address that it is bound to; `None` where it is a Unix socket.
    pub fn local_addr(&self) -> io::Result<Option<SocketAddr>> {
        match &self.socket {
            Either::Left(tcp) => tcp.local_addr().map(Some),
            Either::Right(_) => Ok(None),
        }
    }

    /// The next connection, and the address of who made it where there is one.
    async fn connection(&self) -> io::Result<(Connection, Option<SocketAddr>)> {
        match &self.socket {
            Either::Left(tcp) => {
                let (stream, peer) = tcp.accept().await?;
                // Answers are small: they must not wait for more. It fails where the peer is gone,
                // as the first read will.
                let _ = stream.set_nodelay(true);
                Ok((Either::Left(stream), Some(peer)))
            }
            Either::Right(unix) => {
                let (stream, _) = unix.accept().await?;
                Ok((Either::Right(stream), None))
            }
        }
    }

    /// The next connection that is within the limits.
    pub(super) async fn next(&mut self) -> (GuardedStream, Option<SocketAddr>) {
        loop {
            match self.connection().await {
                Ok((stream, peer)) => {
                    // Over the limit: dropped, and so closed, before anything is read.
                    if let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned() {
                        return (GuardedStream::new(stream, self.limits, permit), peer);
                    }
                }
                Err(error) => {
                    warn!(%error, "cannot accept a connection; are there file descriptors left?");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

impl axum::serve::Listener for GuardedListener {
    type Io = GuardedStream;
    /// `None` over a Unix socket.
    type Addr = Option<SocketAddr>;

    async fn accept(&mut self) -> (GuardedStream, Option<SocketAddr>) {
        self.next().await
    }

    fn local_addr(&self) -> io::Result<Option<SocketAddr>> {
        Self::local_addr(self)
    }
}

type Connection = Either<TcpStream, UnixStream>;

/// A connection that ends at its limits.
#[derive(Debug)]
pub struct GuardedStream {
    stream: Connection,
    /// When the connection must have sent its opening, while it has not; then when it ends.
    deadline: Option<Pin<Box<Sleep>>>,
    ends_at: Option<Instant>,
    /// What is left of the opening, in bytes.
    opening_left: usize,
    /// Whether other tasks had their turn since the last write.
    has_yielded: bool,
    _permit: OwnedSemaphorePermit,
}

impl GuardedStream {
    fn new(stream: Connection, limits: ListenerLimits, permit: OwnedSemaphorePermit) -> Self {
        let now = Instant::now();
        Self {
            stream,
            deadline: Some(Box::pin(sleep_until(now + limits.opening_within))),
            ends_at: limits.max_age.map(|age| now + age),
            opening_left: limits.opening_bytes,
            has_yielded: false,
            _permit: permit,
        }
    }

    /// Cut off so long from now, where it has opened by then.
    pub(super) fn end_after(&mut self, limit: Duration) {
        self.ends_at = Some(Instant::now() + limit);
    }
}

impl AsyncRead for GuardedStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let filled = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if self.opening_left > 0 {
            let come = buffer.filled().len().saturating_sub(filled);
            self.opening_left = self.opening_left.saturating_sub(come);
            if self.opening_left == 0 {
                self.deadline = self.ends_at.map(|at| Box::pin(sleep_until(at)));
            }
        }
        if let Some(deadline) = &mut self.deadline
            && deadline.as_mut().poll(cx).is_ready()
        {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        read
    }
}

impl AsyncWrite for GuardedStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        // The first answer of many calls wakes the connection, which would write it alone. Behind
        // the calls that are ready to run it writes theirs with it.
        if !self.has_yielded {
            self.has_yielded = true;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    /// HTTP/2 copies frames of up to 1 KiB into one buffer when a connection cannot write several at
    /// once, and of up to 256 bytes when it can. An answer is between the two: copied, the answers of
    /// many calls leave in one write, which is worth more than the copy.
    fn is_write_vectored(&self) -> bool {
        false
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.has_yielded = false;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl Connected for GuardedStream {
    /// No call asks who is connected.
    type ConnectInfo = ();

    fn connect_info(&self) {}
}
