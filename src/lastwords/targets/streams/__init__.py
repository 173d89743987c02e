"""Engines that are distributed already: NATS JetStream, Kafka, Redis Streams. Each record is in them exactly once.

Used by ``targets.urls.from_url`` alone; a module is imported when its scheme is named, its client at the first
delivery. What all share is ``stream_target`` (a batch, cut by epochs and sizes) and ``covered`` (what an engine has).
"""
