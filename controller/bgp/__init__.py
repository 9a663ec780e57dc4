"""BGP to the routers outside: which routes, and telling them."""
