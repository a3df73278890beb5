"""Galleries: embeddings of many places with where, when and by which tower, stored, searched, exchanged."""
