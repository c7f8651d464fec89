// SPDX-License-Identifier: MIT
pragma solidity ^0.8.20;

import {Ownable} from "./Ownable.sol";

interface IOracle {
    function price(address token) external view returns (uint256);
}

library Limits {
    uint256 internal constant MAXIMUM = 1000;
}

/// Shares a deposit among members, in proportion to what each one paid.
contract Treasury is Ownable {
    struct Member {
        uint256 paid;
        bool active;
    }

    IOracle private immutable _oracle;
    mapping(address => Member) private _members;
    address[] private _order;
    uint256 public total = 0;

    event Paid(address indexed member, uint256 amount);
    error TooMany(uint256 members);

    modifier onlyMember() {
        require(_members[msg.sender].active, "not a member");
        _;
    }

    constructor(IOracle oracle) {
        _oracle = oracle;
    }

    // The first payment makes a member.
    function pay() external payable {
        Member storage member = _members[msg.sender];
        if (!member.active) {
            if (_order.length >= Limits.MAXIMUM) {
                revert TooMany(_order.length);
            }
            member.active = true;
            _order.push(msg.sender);
        }
        member.paid += msg.value;
        total += msg.value;
        emit Paid(msg.sender, msg.value);
    }

    function share(address account) public view returns (uint256) {
        return total == 0 ? 0 : (_members[account].paid * 1e18) / total;
    }

    function distribute(address token) external onlyMember returns (uint256 sent) {
        try _oracle.price(token) returns (uint256 price) {
            for (uint256 i = 0; i < _order.length; i++) {
                sent += price * share(_order[i]);
            }
        } catch {
            sent = 0;
        }
        uint256 left = _order.length;
        while (left > 0 && !_members[_order[left - 1]].active) {
            _order.pop();
            left--;
        }
    }
}
