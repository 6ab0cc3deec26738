"""What is constant over an audit, what attacks are told of the examples in question, and what they give back."""
