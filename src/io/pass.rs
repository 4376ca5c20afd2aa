//! Writing to a stream by way of what is wrapped around it.

/// The methods of an `AsyncWrite` that hands on to its field `$inner`. The outcome of each write goes
/// through the method `$seen`, where one is named.
macro_rules! pass_writes {
    ($inner:ident $(, $seen:ident)?) => {
        fn poll_write(
            mut self: ::std::pin::Pin<&mut Self>,
            cx: &mut ::std::task::Context<'_>,
            buf: &[u8],
        ) -> ::std::task::Poll<::std::io::Result<usize>> {
            let written = ::std::pin::Pin::new(&mut self.$inner).poll_write(cx, buf);
            $(let written = self.$seen(written);)?
            written
        }

        fn poll_write_vectored(
            mut self: ::std::pin::Pin<&mut Self>,
            cx: &mut ::std::task::Context<'_>,
            bufs: &[::std::io::IoSlice<'_>],
        ) -> ::std::task::Poll<::std::io::Result<usize>> {
            let written = ::std::pin::Pin::new(&mut self.$inner).poll_write_vectored(cx, bufs);
            $(let written = self.$seen(written);)?
            written
        }

        fn is_write_vectored(&self) -> bool {
            self.$inner.is_write_vectored()
        }

        fn poll_flush(
            mut self: ::std::pin::Pin<&mut Self>,
            cx: &mut ::std::task::Context<'_>,
        ) -> ::std::task::Poll<::std::io::Result<()>> {
            ::std::pin::Pin::new(&mut self.$inner).poll_flush(cx)
        }

        fn poll_shutdown(
            mut self: ::std::pin::Pin<&mut Self>,
            cx: &mut ::std::task::Context<'_>,
        ) -> ::std::task::Poll<::std::io::Result<()>> {
            ::std::pin::Pin::new(&mut self.$inner).poll_shutdown(cx)
        }
    };
}

pub(crate) use pass_writes;
