"""Models behind HTTP: `app` has the addresses, `server` runs it, `page/` is what people see at `/`.

An image's way: `bodies` (a request's bytes to pictures) → `decoding` (pixels, by processes of their
own) → `batching` (several requests' images through the model at once) → `answers` (what a client is
told).
"""
