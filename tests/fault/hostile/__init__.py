"""Its fixtures of scope "package" live as long as this folder's tests, no longer."""
