//! Connections under limits, for every door, over TCP and over Unix sockets.

use std::{
    fmt,
    future::Future,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream, UnixListener, UnixStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, Sleep, sleep, sleep_until},
};
use tokio_rustls::{Accept, TlsAcceptor, server::TlsStream};
use tokio_util::either::Either;
use tonic::transport::server::Connected;
use tracing::{debug, warn};

use super::{
    peer::PeerInfo,
    tls::{self, DoorTls, Terms},
};

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
    tls: Option<DoorTls>,
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
            tls: None,
        }
    }

    /// With TLS on it. A Unix socket stays plain: nobody can listen in between.
    pub fn with_tls(mut self, tls: Option<DoorTls>) -> Self {
        self.tls = tls;
        self
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
                        let tls = peer.and(self.tls.clone());
                        let stream = GuardedStream::new(stream, peer, tls, self.limits, permit);
                        return (stream, peer);
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

/// What lies between a connection and its bytes.
enum Layer {
    Plain(Connection),
    /// It is made as it is read from and written to, so that nobody waits for it who accepts.
    Handshake(Box<Accept<Connection>>, Arc<Terms>),
    Tls(Box<TlsStream<Connection>>, Arc<Terms>),
    /// Its handshake failed.
    Closed,
}

/// A connection that ends at its limits.
pub struct GuardedStream {
    layer: Layer,
    tls: Option<DoorTls>,
    peer: PeerInfo,
    /// When the connection must have sent its opening, while it has not; then when it ends.
    deadline: Option<Pin<Box<Sleep>>>,
    ends_at: Option<Instant>,
    /// What is left of the opening, in bytes.
    opening_left: usize,
    /// Whether other tasks had their turn since the last write.
    has_yielded: bool,
    _permit: OwnedSemaphorePermit,
}

impl fmt::Debug for GuardedStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GuardedStream")
            .field("peer", &self.peer)
            .finish_non_exhaustive()
    }
}

impl GuardedStream {
    fn new(
        stream: Connection,
        peer: Option<SocketAddr>,
        tls: Option<DoorTls>,
        limits: ListenerLimits,
        permit: OwnedSemaphorePermit,
    ) -> Self {
        let now = Instant::now();
        let layer = match &tls {
            None => Layer::Plain(stream),
            Some(tls) => {
                let terms = tls.terms();
                let accept = TlsAcceptor::from(Arc::clone(&terms.server)).accept(stream);
                Layer::Handshake(Box::new(accept), terms)
            }
        };
        Self {
            layer,
            tls,
            peer: PeerInfo {
                addr: peer,
                identity: Arc::default(),
            },
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

    /// Goes on with the handshake; ready when there is none, or it has ended.
    fn poll_handshake(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Layer::Handshake(accept, terms) = &mut self.layer else {
            return Poll::Ready(Ok(()));
        };
        let Poll::Ready(made) = Pin::new(&mut **accept).poll(cx) else {
            // HTTP/2 writes before it reads, and may not come to read.
            return self.poll_deadline(cx);
        };
        match made {
            Ok(stream) => {
                let certificates = stream.get_ref().1.peer_certificates();
                if let Some(own) = certificates.and_then(<[_]>::first) {
                    // It is set here alone, and once.
                    let _ = self.peer.identity.set(tls::identity_of(own));
                }
                let terms = Arc::clone(terms);
                self.layer = Layer::Tls(Box::new(stream), terms);
                Poll::Ready(Ok(()))
            }
            Err(error) => {
                debug!(%error, "a handshake failed");
                self.layer = Layer::Closed;
                Poll::Ready(Err(error))
            }
        }
    }

    /// Pending until the time is over.
    fn poll_deadline(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(deadline) = &mut self.deadline else {
            return Poll::Pending;
        };
        deadline
            .as_mut()
            .poll(cx)
            .map(|()| Err(io::ErrorKind::TimedOut.into()))
    }

    /// The bytes behind the handshake, from a client that may still ask.
    fn poll_inner_read(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(self.poll_handshake(cx))?;
        match &mut self.layer {
            Layer::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
            Layer::Tls(stream, terms) => {
                let is_good = |tls: &DoorTls| tls.still_good(terms, stream.get_ref().1);
                if !self.tls.as_ref().is_some_and(is_good) {
                    debug!("a client's certificate is no longer one of the authority's");
                    return Poll::Ready(Err(io::ErrorKind::PermissionDenied.into()));
                }
                Pin::new(stream).poll_read(cx, buffer)
            }
            Layer::Handshake(..) | Layer::Closed => Poll::Ready(Err(closed())),
        }
    }
}

fn closed() -> io::Error {
    io::ErrorKind::BrokenPipe.into()
}

impl AsyncRead for GuardedStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let filled = buffer.filled().len();
        let read = self.poll_inner_read(cx, buffer);
        if self.opening_left > 0 {
            let come = buffer.filled().len().saturating_sub(filled);
            self.opening_left = self.opening_left.saturating_sub(come);
            if self.opening_left == 0 {
                self.deadline = self.ends_at.map(|at| Box::pin(sleep_until(at)));
            }
        }
        match self.poll_deadline(cx) {
            Poll::Ready(over) => Poll::Ready(over),
            Poll::Pending => read,
        }
    }
}

impl AsyncWrite for GuardedStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_handshake(cx))?;
        // The first answer of many calls wakes the connection, which would write it alone. Behind
        // the calls that are ready to run it writes theirs with it.
        if !self.has_yielded {
            self.has_yielded = true;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        match &mut self.layer {
            Layer::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Layer::Tls(stream, _) => Pin::new(stream).poll_write(cx, bytes),
            Layer::Handshake(..) | Layer::Closed => Poll::Ready(Err(closed())),
        }
    }

    /// HTTP/2 copies frames of up to 1 KiB into one buffer when a connection cannot write several at
    /// once, and of up to 256 bytes when it can. An answer is between the two: copied, the answers of
    /// many calls leave in one write, which is worth more than the copy.
    fn is_write_vectored(&self) -> bool {
        false
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.has_yielded = false;
        match &mut self.layer {
            Layer::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Layer::Tls(stream, _) => Pin::new(stream).poll_flush(cx),
            // Nothing was taken that could be left behind.
            Layer::Handshake(..) | Layer::Closed => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.layer {
            Layer::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Layer::Tls(stream, _) => Pin::new(stream).poll_shutdown(cx),
            // It closes when it is dropped.
            Layer::Handshake(..) | Layer::Closed => Poll::Ready(Ok(())),
        }
    }
}

impl Connected for GuardedStream {
    type ConnectInfo = PeerInfo;

    fn connect_info(&self) -> PeerInfo {
        self.peer.clone()
    }
}
