"""What is kept: small interfaces, the store in memory, and the accounts in a file."""
