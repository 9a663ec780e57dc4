"""What guests ask the network itself: packets that switches send to the controller, and its answers."""
