"""Conditioned predictors, guidance, composition and sampling."""
